"""Formats: one file each, named as the format is; `productrec.data.sources.format` says what such a file holds."""
