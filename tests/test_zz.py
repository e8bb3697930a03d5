from tests.tiny import x
def test_a(): assert x == 1
