// The operator's day, one tab each.

export const examples = [
  {
    name: "Partners",
    query: `# Who is in the coalition, and at which prices today.
query Partners {
  partners(first: 50) {
    nodes {
      code
      name
      status
      contracts { version validFrom earnRate issuePrice redeemPrice serviceFee }
    }
  }
}
`,
  },
  {
    name: "Month",
    query: `# A settled month: who owes what, and where the points stand.
query Month($month: YearMonth! = "2017-01") {
  period(month: $month) {
    state
    positions { party { code } net { amount currency } }
    standings { programme { code } outstanding debt expired }
    statements {
      partner { code }
      lines { kind points unitPrice gross { amount } debtor { code } creditor { code } }
      net { amount }
    }
  }
}
`,
  },
  {
    name: "Member",
    query: `# A member by card: wallets, memberships, the latest activity.
query Member($card: String! = "MR-00000900") {
  memberByCard(card: $card) {
    id
    wallets { programme { code } available held owed }
    memberships { partner { code } externalId }
    activity(first: 10) {
      nodes { __typename points occurredAt period ... on Earning { purchase { receipt total { amount } } } }
    }
  }
}
`,
  },
  {
    name: "Wallet",
    query: `# What changed a member's wallet, the latest first, with the balance after it.
query Wallet($card: String! = "MR-00000900") {
  memberByCard(card: $card) {
    person { name email phone }
    wallets {
      programme { code }
      available pending held owed
      history(first: 20) { nodes { postedAt kind points balance transaction } }
    }
    consents { partner { code } purpose scopes withdrawnAt }
  }
}
`,
  },
  {
    name: "Onboard",
    query: `# Onboard a partner; its contract and its client come next (gateway partner client CODE).
mutation Onboard {
  onboardPartner(input: { code: "bakery", name: "The Bakery" }) {
    partner { id code status }
    errors { code message path }
  }
}
`,
  },
  {
    name: "Rate",
    query: `# Publish a conversion rate from a moment on.
mutation PublishRate {
  publishConversionRate(
    input: { from: "MER", to: "SKY", take: 200, give: 110, minimum: 200, increment: 200, validFrom: "2027-01-01T00:00:00Z" }
  ) {
    rate { rate { take give } validFrom }
    errors { code message }
  }
}
`,
  },
  {
    name: "Close",
    query: `# Close and settle a month: for good. It asks for a login with a one-time code, not long ago.
mutation Close($month: YearMonth! = "2017-01") {
  closePeriod(input: { month: $month }) {
    period { month state positions { party { code } net { amount currency } } }
    errors { code message }
  }
}
`,
  },
  {
    name: "Audit",
    query: `# Who did what, the latest first.
query Audit {
  audit(first: 20) { nodes { number at actorKind actor client action result details } }
}
`,
  },
  {
    name: "Integrity",
    query: `# Every invariant of the ledger, checked now.
query Integrity {
  integrity { holds checks { name holds breaches sentence } }
}
`,
  },
];
