"""Image towers, one file each: any module with ``width`` that maps [B,C,S,S] to [B,width]."""
