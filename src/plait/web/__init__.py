"""HTTP without a dialect: guarding what comes in, answering with streams, noticing clients that leave."""
