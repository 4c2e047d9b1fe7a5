"""The load: broker clients and links that cost as little as Python allows, and say what they cost."""
