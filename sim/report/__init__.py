"""What a run leaves for people: CSV files for researchers, a JSON summary, and a timeline page."""
