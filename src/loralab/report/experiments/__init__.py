"""An experiment can be read: from its trials' plain files to tables, figures, words and one page; a folder of them likewise."""
