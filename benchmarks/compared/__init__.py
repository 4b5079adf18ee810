"""What ours is set beside: compressors, quantizers of others, schemes at equal bytes, the bound, known leaks."""
