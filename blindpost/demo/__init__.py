"""The main job as a story, with nothing faked."""
