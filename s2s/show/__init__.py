"""What the model looked at and how a run went: pictures, the report page, the training display."""
