UPDATE totals SET total = total + :fresh WHERE name = 'requests'
