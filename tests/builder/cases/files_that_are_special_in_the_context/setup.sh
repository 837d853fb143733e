mkfifo -m 0644 pipe
truncate -s 1048576 sparse
printf end >> sparse
: > empty
mkdir nothing-in-it
