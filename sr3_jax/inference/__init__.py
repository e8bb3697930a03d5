"""From a checkpoint to images: sampling, devices, tiles, pictures of any size and kind."""
