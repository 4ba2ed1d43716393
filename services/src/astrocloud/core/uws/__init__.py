"""Jobs by the IVOA's Universal Worker Service (UWS 1.1): what VOSpace, batch and archive have in common."""
