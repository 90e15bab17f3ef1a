"""From files to training batches: readers, safe image decoding, augmentation, loading."""
