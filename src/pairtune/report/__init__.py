"""The report: saved records in, a page, a terminal table and figures out. No model is ever loaded here."""
