"""My files: what people do with their files on a page, over the same rules as VOSpace's own interface."""
