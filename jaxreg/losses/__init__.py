"""Similarities and regularisers, each a pure function of one sample."""
