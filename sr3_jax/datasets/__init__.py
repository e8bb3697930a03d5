"""What `sr3 prepare` gathers: photographs from packages, folders and archives, as records to train on."""
