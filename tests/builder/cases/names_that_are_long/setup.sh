hundred=$(printf 'n%.0s' $(seq 101))
name=$(printf 'm%.0s' $(seq 255))
mkdir -p "long/$hundred/$hundred/$hundred"
printf a > "long/$hundred/f"
printf b > "long/$hundred/$hundred/$hundred/$name"
ln -s "$hundred/$hundred/$hundred/$name" long/link
ln "long/$hundred/f" "long/$hundred/$hundred/hard"
