"""Scans as they come to a prepared cohort on one grid."""
