"""A run can be read: from the plain files of a run folder to tables, figures, texts and one page."""
