"""Stages: one file an arrow of the flow; each reads artefacts, calls the library, writes artefacts."""
