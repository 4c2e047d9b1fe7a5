"""What runs on a person's device: mail, chat, groups, attachments, and the gateway of an enterprise."""
