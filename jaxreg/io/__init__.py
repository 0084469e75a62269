"""Files: images, transforms, points and tables; nothing else reads or writes them."""
