UPDATE totals SET total = total + %(fresh)s WHERE name = 'requests'
