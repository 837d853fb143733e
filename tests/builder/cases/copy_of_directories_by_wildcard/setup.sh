printf star > 'no*wild'
printf bracket > '[b]'
printf x > no-wild
