"""The GPU of this node, and the settings that fit its memory."""
