//! Checks and verdicts: worker checks, claims, pass / fail / inconclusive / skip.
