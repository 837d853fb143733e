printf m > '!mark'
