"""The report as a page: words and tables (`view`), figures (`figures`, `plots`, `svg`), and the document (`page`)."""
