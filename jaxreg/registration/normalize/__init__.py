"""The images of one subject brought to a template, and the template's labels to the subject."""
