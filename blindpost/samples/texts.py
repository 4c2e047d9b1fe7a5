"""What the invented people of the sample mail write to one another in the autumn of 2015.

Acme makes looms (Ana Mirza in Toronto, Bilal Siddiqui in Karachi), Globex ships them (Chloé Marchand in Marseille, Dawud
Haddad in Dubai). Forty looms travel, with a cat; in between, the regulator's notice to Pakistan's carriers, to close all
enterprise mail by 30 November, disturbs people who only want to sell looms. `generate.py` turns the texts into mail.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta, timezone


@dataclass(frozen=True)
class Person:
    """One of the four, with their clock.

    Args:
        name: As it stands in headers.
        address: At a domain that RFC 2606 reserves for examples.
        utc_offset_h: Hours between their winter clock and UTC.
        summer_until: Month and day in 2015 until which their clock is an hour further on, if it ever is.
    """

    name: str
    address: str
    utc_offset_h: int
    summer_until: tuple[int, int] | None = None

    def at(self, month: int, day: int, hour: int, minute: int) -> datetime:
        """Return a moment of 2015 on this person's clock."""
        summer = self.summer_until is not None and (month, day) < self.summer_until
        return datetime(2015, month, day, hour, minute, tzinfo=timezone(timedelta(hours=self.utc_offset_h + summer)))


ANA = Person("Ana Mirza", "ana@acme.example", -5, summer_until=(11, 1))
BILAL = Person("Bilal Siddiqui", "bilal@acme.example", 5)
CHLOE = Person("Chloé Marchand", "chloe@globex.example", 1, summer_until=(10, 25))
DAWUD = Person("Dawud Haddad", "dawud@globex.example", 4)


@dataclass(frozen=True)
class Post:
    """One turn of the long thread.

    Args:
        sender: Who writes.
        moment: Month, day, hour and minute of 2015, on the sender's clock.
        text: What stands above the signature.
    """

    sender: Person
    moment: tuple[int, int, int, int]
    text: str

    @property
    def sent_at(self) -> datetime:
        """When it was written, with the sender's offset from UTC."""
        return self.sender.at(*self.moment)


SIGNATURES = {
    ANA: """\
Ana Mirza, Head of Contracts
Acme Looms, Toronto and Karachi

This message and anything attached to it is meant for those to whom it is addressed and may be
confidential or privileged. If you are none of them, please tell the sender, delete it, and forget what
you have read as well as you can. Acme Looms accepts no liability for views on weaving expressed above.
Mail can be late, lost, changed or read on its way; Acme Looms has taken precautions, but cannot promise
that others have. Orders are accepted under our conditions of sale only, also where the order says the
opposite. Acme Looms (Private) Limited, registered in Karachi, works at Plot 31, Site Area; Acme Looms
Incorporated, registered in Ontario, with no works at all.""",
    BILAL: """\
Bilal Siddiqui, Works Manager, Karachi
Sent from my handheld. Please excuse the thumbs.""",
    CHLOE: """\
Chloé Marchand
Globex Maritime, quai d'Arenc, Marseille

Ce message est confidentiel. Toute publication, utilisation ou diffusion, même partielle, doit être
autorisée préalablement. Pensez à l'environnement avant d'imprimer ce message. / This message is
confidential. Any disclosure, use or distribution, in whole or in part, must be authorised beforehand.
Think of the environment before you print this message. Globex Maritime SAS acts as agent only, except
where it acts as carrier; in both cases its liability is limited, and in the second also its enthusiasm.""",
    DAWUD: """\
Dawud Haddad, Cargo and Claims
Globex Maritime FZE, Dubai

Globex carries under its standard conditions of carriage, a copy of which is available on request and
which nobody has ever requested. All quotations are without engagement, subject to space, equipment,
bunker and currency adjustment, war risk, peak season and the good humour of the terminal.""",
}

THREAD_SUBJECT = "Our handhelds after 30 November"

# Oldest first.
THREAD = [
    Post(
        BILAL,
        (9, 21, 10, 4),
        """\
Ana,

our carrier's account manager came by this morning with sweets, which is never a good sign. The
regulator has given notice to the carriers: all BES connections are to be closed by 30 November, for
"serious concerns by the security agencies". He did not know more, or was told not to. He thinks it is
about reading the mail, and that somebody found out that they cannot.

We have 31 handhelds on the enterprise server: mine, the sales people, the two drivers and the night
foreman, who says that his is the only thing in the works that has never broken down.

What do we do? I see three ways and like none:

  1. ordinary mail on ordinary phones, and hope;
  2. go back to fax. We still have the machine. It still has the paper from 2009 in it;
  3. wait. It is ten weeks, and in ten weeks a horse may learn to sing.
""",
    ),
    Post(
        ANA,
        (9, 21, 8, 51),
        """\
Bilal,

thank you for the sweets by proxy. Let us not panic in week one of ten. Three questions first:

  - Who exactly is ordered to do what? The carriers to close connections, you write. So nobody has
    asked US for anything, is that right?
  - What goes over the handhelds that may not be read by others? I think of the price lists, the bank
    details, the release codes for the containers, and everything about the tender in Faisalabad.
  - What would it cost us to be without for a month?

I copy Chloé and Dawud, because the release codes are theirs and they will want to know.

And please keep the fax.
""",
    ),
    Post(
        DAWUD,
        (9, 21, 18, 30),
        """\
Dear Ana, dear Bilal,

we had this in the Emirates in 2010. First everything was to stop on 11 October, then on 8 October it
was found that everything was in order after all. Nobody ever told us what had been agreed, and that is
the part that I still think about. The telephones worked the next day as on the day before. Was that
because nothing had changed, or because something had?

A service that goes on after such a letter tells you nothing. I would like a way to look, and not only
to be told.

For the release codes: whoever has a code and a lorry has the container. I have seen it done with a
borrowed lorry.
""",
    ),
    Post(
        CHLOE,
        (9, 22, 9, 12),
        """\
Hello all,

I asked our IT in Marseille. They explained it to me with two coffee cups and a sugar bowl, and I pass it
on in the same spirit. The cups are the handheld and the server that stands at the customer. The keys
are in the two cups and nowhere else. The sugar bowl is the network centre in Canada: everything passes
through it, and it can read nothing. So whoever asks the sugar bowl asks in vain.

But, they said: if somebody else keeps the second cup for you ("hosted", a good price, very practical),
then the one who keeps it can drink from it. So the question is not in which country the server stands.
The question is who holds the cup.

Who holds our cup, Ana?
""",
    ),
    Post(
        ANA,
        (9, 22, 9, 3),
        """\
Chloé,

I went and looked. Ours stands in a room in Karachi, beside the compressor, under a cloth, and Bilal has
the key to the room. So we hold the cup. Globex's is hosted, I am told; you may want to ask your IT
again, with a third cup.

I like Dawud's sentence very much: "I would like a way to look, and not only to be told." I have put it
to our lawyer. She says that it is not a legal category.
""",
    ),
    Post(
        BILAL,
        (9, 24, 11, 47),
        """\
A correction for the record: it is not a cloth, it is a sample of the new damask, the one with the
pomegranates. The server is the best dressed machine in the works.

I have counted, as you asked. In one working day 31 handhelds send about 640 messages. Most of them say
"OK". Of those that do not, I would be sorry to see perhaps twenty in the newspaper, and two would cost
us the tender. I do not know on the day before which two they will be. That is the difficulty with
sorting them.
""",
    ),
    Post(
        ANA,
        (9, 24, 8, 40),
        """\
Then we cannot sort them, and all of it must be safe, the OKs too. If only the secret ones were locked,
everybody would know which ones to steal.

I have asked our lawyer what we say if someone comes and asks us, and not the carrier, for the mail of one
person. Her answer, which I copy as it is because I could not say it shorter:

   "If a court orders it and the order is lawful, you give what you have. You do not destroy anything
   after you were asked, you do not lie about what there is, and you do not promise what you cannot do.
   If what you have is a box that you cannot open, you give the box. What you must be able to show is
   that you cannot open it. Your word is a beginning. I would rather bring the box and a locksmith."

So there we are again, at a way to look. I have begun a list of locksmiths. It is empty.
""",
    ),
    Post(
        DAWUD,
        (10, 5, 12, 20),
        """\
Ana, the contract has arrived, signed, and the signature verifies here, so every byte of it is as it left
you. The first payment goes out today.

Packing list as received at Jebel Ali, for your files and for Chloé's:

   crates        contents                          gross kg   remarks
   -----------   -------------------------------   --------   -------------------------------
   1 to 16       loom L-40, frame and drive         1,180     each; dry
   17            loom L-40, frame and drive         1,184     dry; makes a noise, see below
   18 to 40      loom L-40, frame and drive         1,180     each; 22 has a scratch, noted
   41 to 100     harness, heddles, reeds              212     each; dry
   101 to 118    spare shuttles, pickers, belts        96     each; 103 opened by customs
   119           manuals in four languages             31     one of them is Finnish. Why?
   120           marked "CAT" by hand                   4     empty

I do not like to write about the noise in crate 17 before I am certain.
""",
    ),
    Post(
        BILAL,
        (10, 5, 17, 2),
        """\
The Finnish manual is a long story and has to do with a discount.

As to crate 17: our packers swear that they counted one loom and nothing else. But the neighbour's cat has
been missing since the loading. I say no more. The boy who wrote "CAT" on 120 says that he made a bed for
her there, and that she chose otherwise.

Could somebody please put water into crate 17, through the slit at the top?
""",
    ),
    Post(
        DAWUD,
        (10, 6, 9, 15),
        """\
Water and half a tin of tuna went through the slit at 08:40. The noise has become friendlier.

The master of the vessel was told, and has entered it in the log as "crate 17: ventilated, fed". He asks
me to say that under clause 6 he has seen no animal, and that under clause 7 he has seen it twice.

For Chloé: the vessel sails tonight and should be with you on the 19th or 20th, if the canal lets her
pass with the Thursday convoy. Forty looms, sealed, seal numbers as follows. Please compare each of them
with the container door and not with the list that the driver shows you; the driver's list always agrees.

   containers    seals                             remarks
   -----------   -------------------------------   -------------------------------------------
   1 to 4        GX 300417 to GX 300420            four looms each
   5             GX 300421                         looms 17 to 20; AIR HOLES, do not close
   6 to 10       GX 300422 to GX 300426            four looms each
   11 to 13      GX 300427 to GX 300429            harness, heddles, reeds
   14            GX 300431                         shuttles and belts; 300430 broke in the closing,
                                                   both halves are in my drawer
""",
    ),
    Post(
        CHLOE,
        (10, 20, 16, 40),
        """\
Crate 17 contains a loom and a cat. Both are in excellent condition. I have written to Ana in French about
the customs side of it, because some things cannot be said in English.

On the other matter: IT came back with the third cup. Ours is hosted, in a very good data centre, with a
very good certificate on the wall, and yes: the keys lie in its database. "But it is in Canada", they
said. I asked what would happen if a judge in Canada asked for the database. They said they would have
to give it. I asked whether it could then be read. They took the cups away.

So since yesterday I know that a machine far away can be less far away than one in the next room. I have
asked for our own.
""",
    ),
    Post(
        ANA,
        (10, 21, 7, 55),
        """\
Thank you, Chloé, also for the cat.

Our lawyer has asked me to write down what we know, what we believe, and what we were told, in three
columns. I send you the short version, because the exercise did me good:

   we know                           we believe                    we were told
   -------------------------------   ---------------------------   ------------------------------
   the carriers must close BES       the aim is to read mail       "security concerns"
   by 30 November
   our server is ours; the keys      nobody has copied them        the backup tape is "somewhere
   are in it and in 31 handhelds                                   safe". WHERE, Bilal?
   the network centre passes on      it cannot read it             it cannot read it
   what it gets

The last line troubles me. In the middle and on the right there stands the same sentence, and on the left
there stands almost nothing. I would give something for a test that I can run myself and that moves it to
the left.
""",
    ),
    Post(
        BILAL,
        (10, 21, 20, 15),
        """\
The tape is in the night foreman's tea tin. I did not know this either. He says that nobody has ever
stolen tea from him twice.

I have moved it to the bank.
""",
    ),
    Post(
        CHLOE,
        (10, 22, 9, 31),
        """\
Bilal, I have read the sentence about the tea tin to our IT, as a joke, and nobody laughed. One of them
went out and made a telephone call. It turns out that our hosted server has a tape also, that it is
changed on Fridays, and that the man who changes it has a van.

May I sum up what I have learnt this autumn, from cups, tins and vans?

  1. A thing can be read wherever its key is. Not where it is locked, not where it is stored: where the
     key is. If you want to know who reads your mail, make a list of the keys.
  2. The list is always longer than you think. There is the server, then the copy of the server, then
     the tape of the copy, then the man.
  3. "We would never do that" and "we could not do that if we tried" are two different sentences, and
     in my trade they carry two different premiums.

Our new server is ordered. It will stand in my office. I have asked for a cloth.
""",
    ),
    Post(
        DAWUD,
        (11, 9, 8, 45),
        """\
Good morning from Dubai, where the second ship has come in two days early, to general embarrassment.

Three weeks remain. My proposal for the release codes, whatever happens on the 30th:

  - no code travels in the same message as the number of its container;
  - a code is valid for one day, and you ask for it on the day;
  - if the handhelds stop, the codes wait. A container that waits costs 90 dollars a day. A container
    that leaves with the wrong lorry costs what is in it, and my job.

Chloé, does Marseille agree?
""",
    ),
    Post(
        CHLOE,
        (11, 9, 10, 2),
        """\
Marseille agrees, with pleasure at the third point.

The cat sails on Thursday with the captain's wife, who has taken to her. Passage paid in sardines. She is
entered in the manifest as "supernumerary", which the port office accepted without a question, after
eleven days of questions about heading 8446.
""",
    ),
    Post(
        BILAL,
        (11, 12, 14, 20),
        """\
The owners of the cat have been told and will send a cake to Marseille. I tried to explain what customs do
with a cake.

Agreed also from Karachi on the codes. I have pinned Dawud's three points over the packing bench, and
since people only read what is new, I have added a fourth that is changed every day. Today it says that
the fourth point is wrong.

The tender in Faisalabad closes on the 26th, four days before the end, whether by luck or not. I shall
carry our price there myself, in an envelope, 180 kilometres each way from the Lahore train. I asked the
clerk whether the envelopes are opened before the day. He was offended. I asked how I would know. He
thought about it for quite a while and then showed me: each envelope is signed across the flap by all who
hand one in, all the others watching, and on the day everyone looks at their own signature first. Nobody
has to trust the clerk, and so nobody has to offend him.

I thought of you, Dawud.
""",
    ),
    Post(
        ANA,
        (11, 27, 8, 30),
        """\
All,

it is Friday, the 30th is on Monday, and I have no news that I could call news. The price lists went out
on paper this week, by courier, like in my father's time. The courier asked me what was so urgent that it
could not be mailed. I said: precisely.

Bilal, if the 31 fall silent on Monday, you call me at nine, Karachi time, from the shop across the road.
Say that the tea is cold and I will know. Say that the tea is warm and I will go back to bed.
""",
    ),
    Post(
        BILAL,
        (12, 1, 8, 58),
        """\
The tea was warm, as I said on the telephone, but it was poured by a nervous hand.

And this came overnight: the deadline is moved by a month, to 30 December. And the company has said
publicly that it would rather leave the country than let anyone read all of the mail. My night foreman
has read that out to the shift. There was applause, and then somebody asked whether the handhelds can be
kept afterwards, as alarm clocks.

So we have 30 days more. The looms at least are sold, paid, and weaving, and the cat is home since
Saturday. She has gained a kilo and does not answer to her name any more, only to French.
""",
    ),
]

THREAD_REPLY = Post(
    ANA,
    (12, 1, 9, 14),
    """\
Bilal, Chloé, Dawud,

thirty days are thirty days. I suggest that we use them, and not only wait: Chloé finishes moving her own
cup, Bilal has the tape tested that was in the tea, and I find out whether there is by now a relay that
one may take apart, serve with an order, and look into. If it is as blind as they say, then let them
show it, with everything on the table. If there is none, somebody ought to build it.

Everything so far is below. Please do not cut it off; our lawyer reads from the bottom.
""",
)

NEWSLETTER_SUBJECT = "The Shuttle, no. 31: forty looms and a passenger"

NEWSLETTER_PLAIN = """\
THE SHUTTLE                                         Acme Looms, November 2015

FORTY LOOMS, ONE PASSENGER
The L-40s for Marseille left Karachi on 22 September and arrived complete on
20 October. Crate 17 also carried a cat, whom nobody had booked. She is well,
and expected home by the end of the month.

WHAT THE PICTURE SHOWS
The houndstooth from the first metre off loom no. 1, woven by the night shift
during a power cut. Look at it closely: all threads are there.

THE HANDHELDS
Many of you ask what happens on the 30th. We do not know yet. Until we do: no
release code in the same message as its container number, and if your handheld
falls silent, nothing is so urgent that it cannot be said across a table.

CANTEEN
Mondays are daal again. The petition was read.

Ana Mirza, for the editors (Bilal, and the night foreman, who corrects him)
"""

NEWSLETTER_HTML = """\
<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>The Shuttle, no. 31</title></head>
<body style="font-family: Georgia, serif; max-width: 36em">
<h1>The Shuttle</h1>
<p><em>Acme Looms, November 2015</em></p>
<h2>Forty looms, one passenger</h2>
<p>The L-40s for Marseille left Karachi on 22 September and arrived complete on 20&nbsp;October. Crate&nbsp;17 also
carried a cat, whom nobody had booked. She is well, and expected home by the end of the month.</p>
<h2>What the picture shows</h2>
<p><img src="cid:houndstooth@acme.example" width="128" height="64" alt="Houndstooth, black on cream"></p>
<p>The houndstooth from the first metre off loom no.&nbsp;1, woven by the night shift during a power cut. Look at it
closely: all threads are there.</p>
<h2>The handhelds</h2>
<p>Many of you ask what happens on the 30th. We do not know yet. Until we do: no release code in the same message as
its container number, and if your handheld falls silent, nothing is so urgent that it cannot be said across a
table.</p>
<h2>Canteen</h2>
<p>Mondays are daal again. The petition was read.</p>
<p>Ana Mirza, for the editors (Bilal, and the night foreman, who corrects him)</p>
</body>
</html>
"""

CONTRACT_SUBJECT = "Contract of carriage AL-2015-040, signed"

CONTRACT_LETTER = """\
Dear Dawud,

here is the contract for the forty looms, as agreed on the telephone on Tuesday, with your clause 7 and
without the comma in clause 4 that cost us an afternoon.

This mail is signed. If your program says that the signature is good, then what you have is what I sent,
byte for byte. If it says anything else, please do not pay, but ring me.

Ana
"""

CONTRACT_PAGES = [
    [
        "CONTRACT OF CARRIAGE AL-2015-040",
        "",
        "between Acme Looms, Toronto and Karachi (the Shipper),",
        "and Globex Maritime FZE, Dubai (the Carrier).",
        "",
        "1. Goods. Forty looms, type L-40, with harness, spares and",
        "   manuals, in 120 crates, gross weight 61,683 kg.",
        "",
        "2. Voyage. From Karachi by way of Jebel Ali to Marseille.",
        "",
        "3. Time. Loading on 22 September 2015. The Carrier delivers",
        "   by 31 October 2015, weather and canals permitting.",
        "",
        "4. Freight. USD 48,600 payable in two parts: one half when",
        "   this contract is signed one half on delivery.",
        "",
        "5. Release. A container is released to whoever names its",
        "   code. The Carrier sends each code once, by encrypted",
        "   mail, and never together with the container's number.",
    ],
    [
        "6. Live animals are not carried.",
        "",
        "7. Where clause 6 has failed, the Carrier feeds the animal,",
        "   and returns it by the next ship at its own expense.",
        "",
        "8. Disputes are first discussed over tea, then in London.",
        "",
        "Toronto, 1 October 2015",
        "",
        "For the Shipper: Ana Mirza, Head of Contracts",
        "For the Carrier: by signed reply to this mail",
    ],
]

ARABIC_SUBJECT = "موعد وصول السفينة وقائمة الطرود"

ARABIC = """\
عزيزي بلال،

تحية طيبة، وبعد:

تصل السفينة إلى دبي يوم الخميس بدلاً من الثلاثاء، فقد أخّرها الموج يومين. القبطان يعتذر، ويقول إن البحر لا يقرأ العقود.

راجعت قائمة الطرود مع أمين المستودع: أربعون نولاً، وثمانون صندوقاً من القطع، أحدها مكتوب عليه بخط اليد «قطة». أرجو التوضيح.

أما الدفعة الأولى فأرسلها بعد أن يصلني العقد الموقّع. ولا ترسل رقم الحساب بالهاتف، بل بالبريد المشفّر كما اتفقنا.

مع خالص التحية،
داود حداد
غلوبكس، دبي
"""

URDU_SUBJECT = "چائے، بجلی اور نیا کرگھا"

URDU = """\
السلام علیکم آنا صاحبہ،

کل رات نیا کرگھا پہلی بار چلا۔ تین گز کپڑا بُنا، پھر بجلی چلی گئی۔ کاریگروں نے موم بتیاں جلائیں، چائے بنائی، اور اندھیرے میں ہی دھاگے گِن لیے۔ ایک بھی نہیں ٹوٹا تھا۔

بلی کے بارے میں: وہ ہماری نہیں، پڑوس کی ہے۔ اس کا نام شیرنی ہے اور اس کے مالک روز پوچھنے آتے ہیں۔ براہِ کرم شلوئے سے کہیے کہ اسے دودھ دیں اور اگلے جہاز سے واپس بھیج دیں۔

ایک بات اور۔ لوگ پوچھ رہے ہیں کہ ۳۰ نومبر کے بعد ہمارے فون چلیں گے یا نہیں۔ میں نے کہا ہے کہ مشین بند ہو سکتی ہے، کام نہیں۔ آپ کے پاس کوئی خبر ہو تو بتائیے گا۔

دعاگو،
بلال صدیقی
ایکمے، کراچی
"""

FRENCH_SUBJECT = "Le métier n° 17 est arrivé à Marseille, et un chat avec lui"

FRENCH = """\
Chère Ana,

Le navire est à quai depuis ce matin. Quarante métiers à tisser étaient annoncés ; nous en avons compté quarante, plus un chat. Il a fait la traversée dans la caisse n° 17, bien au sec, et il refuse d'en sortir. D'après le docker, il ne répond qu'à l'ourdou. (C'est une chatte, dit-il aussi. Il a été griffé, il doit savoir.)

La douane veut savoir sous quelle position tarifaire nous le déclarons. J'ai répondu « pièce de rechange » ; elle n'a pas trouvé cela drôle.

Plus sérieusement :

  – les frais de surestarie s'élèvent à 1 240 € et restent à notre charge ;
  – le connaissement original doit me parvenir avant vendredi ;
  – si vos téléphones se taisent le 30 novembre, prévenez-moi d'abord : je n'ai pas d'autre moyen sûr de vous envoyer les codes d'enlèvement.

Bien à vous,

Chloé Marchand
Globex Maritime, Marseille
"""

BIG_SUBJECT = "The L-40 drawings, all 212 sheets"

BIG_LETTER = """\
Ana,

attached are the drawings that travelled with the second ship, as scanned here on arrival: 212 sheets in
one archive, 5 MiB exactly, which our scanner says is a coincidence. Sheet 118 has the outline of a paw.

Dawud
"""

BCC_SUBJECT = "Dinner for forty looms"

BCC_LETTER = """\
Dear Chloé, dear Bilal,

the last of the forty was accepted on Friday, so we owe ourselves a dinner. I am in Marseille from the
17th to the 19th, Bilal lands on the 18th at noon if his visa does. Let us say Friday the 18th, eight
o'clock, at the place by the Vieux-Port that Chloé calls "not bad", which from her is a decoration.

I am sorry that Dawud cannot be there. He has, as you know, a claim to settle in Dubai that evening.

Ana
"""
