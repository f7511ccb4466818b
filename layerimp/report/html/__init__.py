"""The report as a page: what it says (`view`), its `charts` and `curves`, and the document (`page`)."""
