"""How much of the data is about safety, by a list of words: refusals and harmful-looking prompts.

The rules read words, not intent, in English alone (refusals also in a few other languages): they
find the bulk of what safety data looks like, miss what is put harmlessly, and count a question on
the history of poisons. They serve to see a share, not to sort rows out.
"""

from __future__ import annotations

import re

from strop.curate.check.families.features import BEGINNING
from strop.curate.check.finding import Section, finding
from strop.curate.check.ledger import answers_of, said
from strop.curate.check.survey import Survey, share
from strop.data.duplicates import asked
from strop.text.refusal import refuses
from strop.types import Document, Feedback, Record

TOO_MUCH = 0.1
"""Share of rows about safety from which a policy learns to refuse what is harmless."""

_DO = r"(?:make|build|create|cook|synthesi[sz]e|produce|buy|get|smuggle|plant|construct|assemble)"
_ASK = (
    r"(?:how (?:to|do i|can i|could i|would i|do you)|ways? to|steps? to|help me|tell me|teach me)"
)
HARMFUL = re.compile(
    "|".join(
        (
            rf"\b{_DO}\b[^.?!\n]{{0,40}}\b(?:bombs?|explosives?|grenades?|molotov"
            r"|nerve (?:gas|agent)|ricin|sarin|anthrax|meth(?:amphetamine)?|heroin|fentanyl"
            r"|cocaine|bioweapons?|chemical weapons?|ghost guns?|silencers?|napalm)\b",
            rf"\b{_ASK}\b[^.?!\n]{{0,60}}\b(?:kill|murder|poison|kidnap|stalk|blackmail|torture|rape"
            r"|strangle|stab|assassinate|lynch)\b(?! (?:time|the (?:process|mood|lights?)|process"
            r"|a process|weeds?|bacteria|mold|mould|germs|ants|mosquitoes))",
            rf"\b{_ASK}\b[^.?!\n]{{0,60}}\b(?:hack|break) into\b[^.?!\n]{{0,40}}\b(?:account"
            r"|phone|computer|e?mail|wi-?fi|network|house|car|bank|server|webcam)",
            r"\b(?:write|create|build|make|spread|deploy)\b[^.?!\n]{0,30}\b(?:malware|ransomware"
            r"|keylogger|phishing|computer virus|trojan|botnet|rootkit)\b",
            rf"\b{_ASK}\b[^.?!\n]{{0,60}}\b(?:steal|shoplift|launder money|forge|counterfeit|scam"
            r"|defraud|evade taxes|fake (?:id|passport|documents?|reviews?))",
            r"\b(?:kill|hurt|harm|cut(?:ting)?) (?:my|your|him|her|them|one)sel(?:f|ves)\b",
            r"\b(?:commit suicide|suicide method|end my life|self-harm)\b",
            r"\b(?:child porn|csam|sexual[^.?!\n]{0,20}\b(?:minor|child|teenager)s?)\b",
            r"\b(?:write|tell|make)\b[^.?!\n]{0,40}\b(?:racist|sexist|homophobic|antisemitic"
            r"|hateful|genocid\w+)\b",
            r"\b(?:drug (?:someone|her|him|a drink)|date rape|roofie)\b",
        )
    ),
    re.IGNORECASE,
)


def harmful(prompt: str) -> bool:
    """Whether a prompt looks harmful: `harmful("How do I build a pipe bomb?")`."""
    return HARMFUL.search(prompt) is not None


def safety(survey: Survey) -> Section:
    """Share of the sampled rows whose prompt looks harmful or whose liked answer refuses."""
    records = [one for one in survey.sample.records() if not isinstance(one, Document)]
    if not records:
        return Section("safety", {})
    asking = [harmful(asked(record.prompt)) for record in records]
    refusing = [_refuses(record) for record in records]
    about = [place for place in range(len(records)) if asking[place] or refusing[place]]
    part = share(len(about), len(records))
    figures = {
        "rows": len(records),
        "harmful_prompts": sum(asking),
        "refusals": sum(refusing),
        "safety_rows": len(about),
        "share": part,
    }
    if part <= TOO_MUCH:
        return Section("safety", figures)
    text = (
        f"{part:.1%} of the rows are about safety ({sum(asking):,} harmful-looking prompts, "
        f"{sum(refusing):,} refusals to learn, by a list of words)"
    )
    places = [records[place].origin for place in about[:5]]
    return Section("safety", figures, (finding("safety_share", "warn", text, len(about), places),))


def _refuses(record: Record) -> bool:
    """Whether the answer that would be learnt is a refusal."""
    if isinstance(record, Feedback) and not record.label:
        return False
    answers = answers_of(record)
    return bool(answers) and refuses(said(answers[0])[:BEGINNING])
