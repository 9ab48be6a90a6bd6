//! What workers do and what they report: work types, policies, reports. Data only.
