"""Reports: sections, tables and charts of results, as text, Markdown, CSV and HTML."""
