"""`sr3 prepare`: photographs from packages, folders and archives, as records to train on."""
