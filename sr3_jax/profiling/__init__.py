"""Memory and time: estimated for TPU slices that are not here, and measured on devices that are."""
