tegu --version
