"""The command `warmline`: mounts the server's, the simulator's and the client's commands. Imports all of them."""
