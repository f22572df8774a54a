"""From predictions to figures and reports."""
