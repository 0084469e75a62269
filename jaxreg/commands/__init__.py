"""The console commands, a file each: `main(argv)` turns flags into calls. tyro lives here."""
