mkdir odd
printf latin > "odd/$(printf 'caf\351')"
printf utf > odd/日本
printf line > "odd/$(printf 'new\nline')"
printf quote > "odd/q'u\"o\\te"
printf quo > "odd/ quo "
printf dash > odd/--dash
printf hash > 'odd/#hash'
printf wh > odd/.wht
