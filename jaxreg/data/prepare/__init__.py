"""`jaxreg prepare`: scans in a common layout become a cohort on one grid."""
