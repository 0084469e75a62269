"""The ICBM 2009c nonlinear symmetric template; jaxreg finds its files without this module."""
