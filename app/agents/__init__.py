"""What programs that speak MCP (the Model Context Protocol) may do with a collection, and how Gradio serves it."""
