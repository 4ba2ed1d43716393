"""VOSpace 2.1 over the platform's file tree: the same files that people's servers see, by the IVOA's protocol."""
