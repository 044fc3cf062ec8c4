"""The nouns: frozen dataclasses that stages hand to each other as JSON. Imports nothing of autoseg.

Takes plain values; gives checked objects and JSON with a schema version. Must not read files or know the stages.
"""
