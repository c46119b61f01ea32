"""What the server lets through: requests, logins, uploads, and how long they are kept."""
