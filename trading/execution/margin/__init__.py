"""What a position holds back from buying power: margin by its rules, at opening and after."""
