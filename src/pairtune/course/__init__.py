"""What a learner's own code is held against: the DPO loss written plainly, and the usual ways to get it wrong."""
