"""Curation of raw text: a cascade of filters on Apache Beam."""
