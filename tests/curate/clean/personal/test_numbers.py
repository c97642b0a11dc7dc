"""Cards, accounts, phones and national numbers."""

from __future__ import annotations

import pytest

from strop.curate.clean.personal.national import SCHEMES
from tests.support.personal import values


@pytest.mark.parametrize(
    "number",
    [
        "4111111111111111",  # the issuers' published test numbers
        "4111 1111 1111 1111",
        "5555-5555-5555-4444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "30569309025904",
        "6011111111111117",
        "3530111333300000",
        "6200000000000005",
        "6759649826438453",
        "4000000000000000006",
    ],
)
def test_a_card_by_its_issuer_length_and_check_digit(number: str) -> None:
    assert values(f"It reads {number}.", "card") == [number]
    last = str((int(number[-1]) + 1) % 10)
    assert values(f"It reads {number[:-1]}{last}.", "card") == []


@pytest.mark.parametrize(
    "text",
    [
        "9111111111111119",  # no issuer
        "41111111111111110",  # a digit more
        "4111 111 11111 1111",  # no card is printed so
        "order 4222222222222",  # 13 digits, and no word for a card
        "0.4111111111111111",
        "1 4111 1111 1111 1111",
    ],
)
def test_other_long_numbers_are_no_cards(text: str) -> None:
    assert values(text, "card") == []


def test_a_word_admits_the_short_forms_and_new_ranges() -> None:
    assert values("my card 4222222222222", "card") == ["4222222222222"]
    assert values("card number 3598899323053410", "card") == ["3598899323053410"]
    assert values("order number 3598899323053410", "card") == []


@pytest.mark.parametrize(
    "number",
    [
        "DE89370400440532013000",  # the registry's own examples
        "DE89 3704 0044 0532 0130 00",
        "gb29nwbk60161331926819",
        "FR14-2004-1010-0505-0001-3M02-606",
        "NO93 8601 1117 947",
        "MT84MALT011000012345MTLCAST001S",
    ],
)
def test_an_account_by_country_structure_and_check_digits(number: str) -> None:
    assert values(f"Pay to {number}, and thanks", "iban") == [number]
    assert values(f"Pay to {number[:3]}{(int(number[3]) + 1) % 10}{number[4:]}", "iban") == []
    assert values(f"Pay to {number}9", "iban") == []
    assert values(f"Pay to {number[:-1]}", "iban") == []


def test_words_after_an_account_are_left_alone() -> None:
    assert values("DE89 3704 0044 0532 0130 00 and more", "iban") == ["DE89 3704 0044 0532 0130 00"]
    assert values("BE68 5390 0754 7034 and more", "iban") == ["BE68 5390 0754 7034"]
    assert values("BE68 5390 0754 7034 12", "iban") == []


@pytest.mark.parametrize(
    "number",
    [
        "+1 415 555 0132",
        "+14155550132",
        "(415) 555-0132",
        "415.555.0132",
        "001-518-640-0854",
        "345-899-3560x4587",
        "415-555-0132 ext. 12",
        "+44 7700 900123",
        "+46 (0)8 928 571 38",
        "+49 (30) 901820",
        "0044 20 7946 0958",
        "020 7946 0958",
        "01.84.17.61.18",
        "(11) 91234-5678",
    ],
)
def test_a_phone_number_by_its_form_alone(number: str) -> None:
    assert values(f"Noted: {number}.", "phone") == [number]
    assert values(f"({number})", "phone") == [number]


@pytest.mark.parametrize("number", ["467 3395", "4155550132", "0490 75 40 81", "9472 7916"])
@pytest.mark.parametrize(
    "word", ["Phone: ", "call me at ", "My number is ", "tel. ", "text us on "]
)
def test_a_word_makes_a_number_a_phone(word: str, number: str) -> None:
    assert values(f"{word}{number}, please", "phone") == [number]
    assert values(f"order {number}, please", "phone") == []


@pytest.mark.parametrize(
    "number",
    [
        "123-456-7890",
        "(415) 155-0132",
        "415-555-013",
        "415-555-01321",
        "+1 023 555 0132",
        "+999 415 555 0132",
        "+33 6 12 34 56",
        "2023-01-15",
        "15-01-2023",
        "167 3395",
        "192.168.10.14",
    ],
)
def test_what_no_plan_knows_is_no_phone_whatever_is_said(number: str) -> None:
    assert values(f"Call me at {number} tonight", "phone") == []


def test_sums_and_dates_of_ordinary_texts_are_no_phones() -> None:
    assert (
        values("So she needs to work 2000/1000 = 2, in 1999-2004 or 3 000 000 times", "phone") == []
    )


NUMBERS = {
    "us social security": "398-25-9791",
    "us social security, no hyphens": "027464686",
    "us taxpayer (ITIN)": "904-92-5899",
    "ar CUIT": "20-78438556-7",
    "au tax file": "868 862 256",
    "be national": "57.03.92-297.04",
    "bg EGN": "6144134275",
    "br CPF": "299.284.643-08",
    "br CPF, bare": "12107035300",
    "ca social insurance": "298-024-449",
    "ch AHV": "756.6884.6365.59",
    "cl RUT": "70.518.076-8",
    "cn resident": "11010519491231002X",
    "cz, sk birth": "710319/2745",
    "de tax": "54 386 701 938",
    "dk CPR": "250813-5667",
    "ee, lt personal": "41312029506",
    "es DNI": "41236405G",
    "es NIE": "Z3819058M",
    "fi personal": "120123U843N",
    "fr social security": "1 13 75 23 131 760 52",
    "gb national insurance": "JZ 04 83 80 B",
    "gb NHS": "6629715489",
    "gr AMKA": "02068911045",
    "hr OIB": "34580499336",
    "ie PPS": "7454896U",
    "il identity": "467092243",
    "in Aadhaar": "2739 3666 7097",
    "in Aadhaar, bare": "569270705141",
    "in PAN": "JMTTH9966L",
    "it codice fiscale": "UKFQLL74H29J493J",
    "jp my number": "1140-0471-4739",
    "kr resident": "250118-4557901",
    "mx CURP": "RQCQ440308MDFXAI14",
    "my NRIC": "200806-83-4073",
    "nl BSN": "211726679",
    "no birth": "41032263710",
    "pk CNIC": "69985-4954683-3",
    "pl PESEL": "65412565763",
    "pt tax": "174774460",
    "ro CNP": "7060222810886",
    "se personal": "050102+8237",
    "th identity": "4-7349-30747-56-9",
    "tr identity": "78957408200",
    "za identity": "3006027072010",
}
WORDS = {"de tax": "Steuer-ID", "ie PPS": "PPS", "il identity": "Israeli ID", "tr identity": "TCKN"}
WITHOUT_CHECK = {"us social security", "us social security, no hyphens", "us taxpayer (ITIN)"} | {
    "gb national insurance", "pk CNIC", "in PAN", "my NRIC", "dk CPR",
}  # fmt: skip
"""Numbers that no check digit protects: only their parts are limited."""


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_each_national_number(scheme: str) -> None:
    number, kind = NUMBERS[scheme], SCHEMES[scheme].kind
    word = WORDS.get(scheme, SCHEMES[scheme].words.split("|")[0])
    assert values(f"My {word} {number}, as asked", kind) == [number]


@pytest.mark.parametrize("scheme", sorted(SCHEMES.keys() - WITHOUT_CHECK))
def test_a_wrong_check_digit_is_no_national_number(scheme: str) -> None:
    number, word = NUMBERS[scheme], SCHEMES[scheme].words.split("|")[0]
    place = max(i for i, sign in enumerate(number) if sign.isdigit())
    wrong = [number[:place] + digit + number[place + 1 :] for digit in "0123456789"]
    found = [w for w in wrong if w != number and SCHEMES[scheme].valid(w)]
    assert not found, (word, found)


@pytest.mark.parametrize("scheme", sorted(name for name, s in SCHEMES.items() if s.words))
def test_bare_digits_need_their_word(scheme: str) -> None:
    text = f"There were {NUMBERS[scheme]} of them"
    assert values(text, SCHEMES[scheme].kind) == [] or scheme in ("jp my number", "nl BSN")


@pytest.mark.parametrize(
    "number",
    ["000-12-3456", "666-12-3456", "900-12-3456", "123-00-4567", "123-45-0000", "078-05-1120",
     "123-45-678", "123-45-67890", "12-345-6789"],
)  # fmt: skip
def test_social_security_numbers_that_are_never_given_out(number: str) -> None:
    assert values(f"My SSN is {number}.", "ssn") == []


def test_a_county_that_the_library_does_not_know_is_no_crash() -> None:
    assert values("Number 367459198001011201.", "national_id") == ["367459198001011201"]
